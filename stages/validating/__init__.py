"""The parts of the validate stage: rows read, rules applied, splits made, findings reported."""
