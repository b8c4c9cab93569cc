"""The catalog: what is known of the site's images."""
