"""The method as the paper has it; read mst.py first."""
