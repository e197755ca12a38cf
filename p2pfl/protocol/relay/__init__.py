"""How two members that nobody can dial meet: through a third, which passes on what it cannot read."""
