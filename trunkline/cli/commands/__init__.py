"""The commands, a module a noun: each parses its options, calls one service of `trunkline.control`, and prints what that returns."""
