"""Run the command without its entry point: `python -m headwater`."""

from headwater.commands import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
