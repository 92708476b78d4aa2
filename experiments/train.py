from warpjax.runner.commands.train import command

command()
