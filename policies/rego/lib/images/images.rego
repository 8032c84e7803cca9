# METADATA
# title: Image sources
# description: Whether an image comes from an approved registry and repository; whole path segments only.
package portcullis.lib.images

approved(image) if {
	some source in input.config.images
	source.registry == image.registry
	below(object.get(source, "repository", ""), image.repository)
}

below(folder, _) if folder == ""

below(folder, repository) if folder == repository

below(folder, repository) if startswith(repository, concat("", [folder, "/"]))

shown(image) := concat("/", [image.registry, image.repository])
