"""What can be asked of an install, a module a subject, over one `Cluster`: services that return data or events and print nothing."""
