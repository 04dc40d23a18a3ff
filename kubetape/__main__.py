from kubetape.cli import main

if __name__ == "__main__":
    main()
