package mesh

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// IstiodAddress returns the host:port at which the istiod of a revision serves xDS
// and certificates, with the Service name from Istio's chart. An empty revision
// means the default revision.
func IstiodAddress(namespace, revision string) string {
	return objectName("istiod", revision) + "." + namespace + ".svc:15012"
}

// istiodEnvironment returns the environment variables of istiod that have literal
// values. The last of several variables with the same name wins, as in a container.
func istiodEnvironment(istiod *appsv1.Deployment) map[string]string {
	env := make(map[string]string)
	for _, e := range discoveryEnv(istiod) {
		env[e.Name] = e.Value
	}
	return env
}

// isSetFrom reports whether a variable of istiod has a valueFrom.
func isSetFrom(istiod *appsv1.Deployment, name string) bool {
	return slices.ContainsFunc(discoveryEnv(istiod), func(e corev1.EnvVar) bool {
		return e.Name == name && e.ValueFrom != nil
	})
}

// discoveryEnv returns the environment of istiod's container, which the chart calls
// discovery. The pod can have other containers too.
func discoveryEnv(istiod *appsv1.Deployment) []corev1.EnvVar {
	containers := istiod.Spec.Template.Spec.Containers
	i := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == "discovery" })
	if i < 0 && len(containers) > 0 {
		i = 0
	}
	if i < 0 {
		return nil
	}
	return containers[i].Env
}
