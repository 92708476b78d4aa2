from warpjax.runner.commands.prepare_data import command

command()
