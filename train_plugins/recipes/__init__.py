"""Recipe files, mixes, launch configs and presets: data, found by `evalsuite.trainers.recipes`."""
