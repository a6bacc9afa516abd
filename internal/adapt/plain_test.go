package adapt

func newPlainGCC() estimator { return NewEstimator() }
