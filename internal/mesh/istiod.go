package mesh

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// IstiodAddress is host:port where the istiod of a revision serves xDS and
// certificates, as Istio's chart names it. The empty revision is the default
// one.
func IstiodAddress(namespace, revision string) string {
	return objectName("istiod", revision) + "." + namespace + ".svc:15012"
}

// istiodEnvironment returns the plain environment variables of istiod. The last of
// several with one name counts, as it does for a container.
func istiodEnvironment(istiod *appsv1.Deployment) map[string]string {
	env := make(map[string]string)
	for _, e := range discoveryEnv(istiod) {
		env[e.Name] = e.Value
	}
	return env
}

// isSetFrom says whether a variable of istiod takes its value from elsewhere.
func isSetFrom(istiod *appsv1.Deployment, name string) bool {
	return slices.ContainsFunc(discoveryEnv(istiod), func(e corev1.EnvVar) bool {
		return e.Name == name && e.ValueFrom != nil
	})
}

// discoveryEnv returns the environment of istiod's container, which the chart
// calls discovery; meshes with sidecars of their own in the pod have more.
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
