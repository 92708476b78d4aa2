from warpjax.runner.commands.profile import command

command()
