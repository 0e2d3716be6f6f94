"""How the device itself does: one file per check, which reads, and judges what was read, apart from the others."""
