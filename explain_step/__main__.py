"""``python -m explain_step``."""

from explain_step.cli import main

if __name__ == "__main__":
    main()
