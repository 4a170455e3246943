"""Who somebody is: the people a centre knows, their pools and roles, and how they sign in."""
