"""From prepared slices to a posterior: samplers by name, sampling, assembly and provenance."""
