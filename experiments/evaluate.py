from warpjax.runner.commands.evaluate import command

command()
