from warpjax.runner.commands.tune import command

command()
