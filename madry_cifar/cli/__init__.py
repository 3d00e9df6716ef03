"""What commands share: flags, errors, progress."""
