"""What can be asked of an install, a module a subject, over one `Cluster`: services that return data or events and print nothing.

All of them block on the broker, so an event loop calls them in a thread. A service that takes time gives an iterator: what was asked
is written before it returns, and closing the iterator ends the waiting only.
"""
