"""Who may do what, free of any web framework: the fence around what is served, principals and their keys, rules and their judgement."""
