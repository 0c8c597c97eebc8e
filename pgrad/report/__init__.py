"""What a run is worth: evaluation, curves, comparisons, videos."""
