"""What every command needs: flags, files that appear whole, progress.

It knows nothing of ALBERT; all may come in.
"""
