"""AgentRegistry, execution engine, tools and workers."""
