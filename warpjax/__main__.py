"""`python -m warpjax COMMAND` is `warpjax COMMAND`."""

from warpjax.runner.__main__ import main

if __name__ == "__main__":
  main()
