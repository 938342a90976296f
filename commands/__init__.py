"""What the command line is made of: ``nextitem.py`` holds the stages, ``serving`` the commands around a server."""
