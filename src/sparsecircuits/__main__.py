"""`python -m sparsecircuits` is the same program as `sparsecircuits`."""

from sparsecircuits.cli import main

if __name__ == "__main__":
    main()
