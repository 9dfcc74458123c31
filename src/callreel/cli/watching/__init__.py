"""What `callreel watch` is made of: a folder that others fill, a journal of what was done with it, and the import."""
