"""``python -m trioweb`` is the command ``trioweb``."""

from trioweb.cli import main

if __name__ == "__main__":
    main()
