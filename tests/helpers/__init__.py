"""What tests share: builders of tiny real parts, real servers, and the projects they work in."""
