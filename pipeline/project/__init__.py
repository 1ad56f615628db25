"""What every package stands on: paths, params, errors, locks, whole files, provenance; it decides no output."""
