from warpjax.runner.commands.report import command

command()
