"""What every part uses: errors, configs, atomic files, progress, the environment."""
