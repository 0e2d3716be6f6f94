"""What happens to objects that are followed: they come and go, enter zones, cross lines, stay and stop."""
