"""The contract with clients: endpoints, requests, responses and problems. Imports no other folder of `web`."""
