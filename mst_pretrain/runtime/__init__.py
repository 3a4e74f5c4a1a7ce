"""What every part uses: errors, configs, progress."""
