from warpjax.runner.commands.demo import command

command()
