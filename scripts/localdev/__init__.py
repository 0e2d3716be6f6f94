"""What stands in for AWS on a laptop: a Greengrass core, the cloud, and simulators."""
