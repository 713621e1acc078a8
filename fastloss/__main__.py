from .cli import main

# Workers of `check --exhaustive` import this module too.
if __name__ == "__main__":
    raise SystemExit(main())
