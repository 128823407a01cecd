package restart

import "fmt"

// settingsChecksum is the annotation that the chart sets on its pods, so that they are
// rolled out again when the settings change.
const settingsChecksum = "checksum/settings"

// versionOf returns the image and the settings that every pod of a Deployment runs,
// or why they may differ.
func versionOf(w *workload) (string, error) {
	switch {
	case !w.rollout.complete:
		return "", fmt.Errorf("%s is not rolled out: %s", w, w.rollout.waitsFor)
	case w.available == 0:
		return "", fmt.Errorf("%s has no pod that is available", w)
	case len(w.template.Spec.Containers) == 0:
		return "", fmt.Errorf("%s has no container", w)
	}
	return w.template.Spec.Containers[0].Image + ", settings " + w.template.Annotations[settingsChecksum], nil
}

// compareVersions returns nil when the controller and the webhook run the same.
func compareVersions(controller, webhook string) error {
	if controller != webhook {
		return fmt.Errorf("the controller runs %s and the webhook %s", controller, webhook)
	}
	return nil
}
