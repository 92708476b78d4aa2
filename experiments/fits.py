from warpjax.runner.commands.fits import command

command()
