"""The demo: the suite at work on this machine, each part of it a stage that must show its evidence."""
