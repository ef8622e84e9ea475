"""The factor language: formulas as the papers write them, as trees, as SQL."""
