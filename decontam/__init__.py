"""N-gram decontamination of training data against evaluation data. Stands alone: imports nothing of evalsuite."""
