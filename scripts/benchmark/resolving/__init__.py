"""State resolution alone: the resolvers of both servers on the same fork, each in a process."""
