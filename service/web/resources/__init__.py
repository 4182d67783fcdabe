"""The endpoints: one blueprint a resource, and nothing but HTTP in them."""
