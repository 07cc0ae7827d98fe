"""The engines that ship: SGLang over HTTP, and the scripted one; and the pool that chooses among them."""
