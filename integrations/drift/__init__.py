"""How models hold up as queries drift from the words of training."""
